"use strict";
// Interactive timelines: small charts of one run on one time axis, with one cursor for all of them. Everything
// drawn comes from the JSON that the page embeds, and text enters the page as text only.
(() => {
  const SVG = "http://www.w3.org/2000/svg";
  const HEIGHT = 84, LEFT = 46, RIGHT = 10, STRIP = 18;

  const make = (name, attributes = {}, text = "") => {
    const svg = ["svg", "g", "path", "rect", "line", "circle", "text"].includes(name);
    const element = svg ? document.createElementNS(SVG, name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
    if (text) element.textContent = text;
    return element;
  };
  const into = (parent, ...children) => { parent.append(...children); return parent; };
  const seconds = (ms) => (ms / 1000).toFixed(2);
  const shown = (value) => {
    const size = Math.abs(value);
    return (size >= 100 ? value.toFixed(0) : size >= 10 ? value.toFixed(1) : value.toFixed(2)).replace("-", "\u2212");
  };
  const phaseColour = (phase) => `var(--phase-${phase.replace("_", "-")})`;

  // Steps of 1, 2 or 5 times a power of ten, about `count` of them.
  const ticks = (low, high, count) => {
    const rough = (high - low) / count;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
    const found = [];
    for (let at = Math.ceil(low / step - 1e-9) * step; at <= high + step * 1e-6; at += step) found.push(at);
    return [found, Math.max(0, -Math.floor(Math.log10(step) + 1e-9))];
  };

  // The place of the sample nearest in time; -1 where the line has none or is broken there.
  const nearest = (line, at) => {
    let low = 0, high = line.t.length - 1;
    if (high < 0 || at < line.t[0] - 500 || at > line.t[high] + 500) return -1;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (line.t[middle] < at) low = middle + 1; else high = middle;
    }
    const place = low > 0 && at - line.t[low - 1] < line.t[low] - at ? low - 1 : low;
    return line.v[place] === null ? -1 : place;
  };

  class Timeline {
    constructor(host, data) {
      this.host = host;
      this.data = data;
      this.at = null;
      this.end = Math.max(...data.runs.flatMap((run) => run.phases.map((span) => span[2])));
      this.run = data.runs[0];
      this.head();
      this.stack = make("div", { class: "stack", tabindex: "0", role: "slider", "aria-orientation": "horizontal" });
      this.stack.setAttribute("aria-label", `Moment in a run of ${data.name}, in seconds`);
      host.append(this.stack);
      for (const [what, why] of data.empty) {
        host.append(into(make("p", { class: "small muted absent" }), make("b", {}, what), ` NA: ${why}`));
      }
      this.listen();
      new ResizeObserver(() => this.draw()).observe(host);
      this.draw();
    }

    head() {
      const head = make("div", { class: "live-head" });
      if (this.data.runs.length > 1) {
        const choice = make("select", { "aria-label": `Run of ${this.data.name}` });
        this.data.runs.forEach((run, place) => {
          const text = place ? run.label : `${run.label} (median)`;
          choice.append(make("option", { value: place }, text));
        });
        choice.addEventListener("change", () => {
          this.run = this.data.runs[Number(choice.value)];
          this.draw();
        });
        head.append(into(make("label", { class: "small" }, "Run "), choice));
      }
      this.moment = make("output", { class: "small moment" });
      head.append(this.moment);
      this.host.append(head);
    }

    x(ms) { return LEFT + (this.width - LEFT - RIGHT) * ms / this.end; }

    // Lowest and highest of a panel over all runs, so that runs share a scale.
    range(panel) {
      const values = this.data.runs.flatMap((run) => (run.panels[panel.title] || []).flatMap((line) => line.v))
        .filter((value) => value !== null);
      let low = values.reduce((least, value) => Math.min(least, value), Infinity);
      let high = values.reduce((most, value) => Math.max(most, value), -Infinity);
      if (panel.zero) return [0, high > 0 ? high * 1.08 : 1];
      if (high - low < 2) [low, high] = [(low + high) / 2 - 1, (low + high) / 2 + 1];
      const room = 0.08 * (high - low);
      return [low - room, high + room];
    }

    path(line, y) {
      let pen = "M", text = "";
      line.t.forEach((t, place) => {
        if (line.v[place] === null) { pen = "M"; return; }
        text += `${pen}${this.x(t).toFixed(1)} ${y(line.v[place]).toFixed(1)}`;
        pen = "L";
      });
      return text;
    }

    shade(svg, top, height, opacity) {
      for (const [phase, start, end] of this.run.phases) {
        svg.append(make("rect", { x: this.x(start), y: top, width: Math.max(0, this.x(end) - this.x(start)), height,
          fill: phaseColour(phase), "fill-opacity": opacity }));
      }
    }

    drawStrip() {
      const svg = make("svg", { width: this.width, height: STRIP, "aria-hidden": "true" });
      this.shade(svg, 0, STRIP - 3, 1);
      for (const [phase, start, end] of this.run.phases) {
        const label = this.data.labels[phase] || phase;
        if (this.x(end) - this.x(start) < 6.2 * label.length + 8) continue;
        svg.append(make("text", { x: (this.x(start) + this.x(end)) / 2, y: 11.5, class: `on ${phase}` }, label));
      }
      return svg;
    }

    drawPanel(panel, last) {
      const lines = this.run.panels[panel.title] || [];
      const [low, high] = this.range(panel);
      const y = (value) => 4 + (HEIGHT - 8) * (1 - (value - low) / (high - low));
      const svg = make("svg", { width: this.width, height: HEIGHT + (last ? 20 : 0), "aria-hidden": "true" });
      this.shade(svg, 0, HEIGHT, 0.15);
      const [levels, digits] = ticks(low, high, 3);
      for (const level of levels) {
        svg.append(make("line", { x1: LEFT, x2: this.width - RIGHT, y1: y(level), y2: y(level), class: "grid" }));
        const number = level.toFixed(digits).replace("-", "\u2212");
        svg.append(make("text", { x: LEFT - 6, y: y(level) + 3.5, class: "level" }, number));
      }
      if (last) {
        const [moments, places] = ticks(0, this.end / 1000, Math.max(3, Math.min(8, this.width / 90)));
        for (const moment of moments) {
          svg.append(make("text", { x: this.x(moment * 1000), y: HEIGHT + 14, class: "time" },
            moment.toFixed(places) + (moment ? "" : " s")));
        }
      }
      for (const other of this.data.runs) {
        if (other === this.run) continue;
        for (const line of other.panels[panel.title] || []) {
          svg.append(make("path", { d: this.path(line, y), class: "faint", stroke: line.colour }));
        }
      }
      const dots = lines.map((line) => {
        svg.append(make("path", { d: this.path(line, y), class: line.dash ? "line dash" : "line", stroke: line.colour }));
        return make("circle", { r: 3.2, fill: line.colour, class: "dot" });
      });
      const cursor = make("line", { y1: 0, y2: HEIGHT, class: "cursor" });
      into(svg, cursor, ...dots);
      const title = make("div", { class: "panel-title" });
      title.append(make("b", {}, panel.title));
      const values = lines.map((line) => {
        const key = make("i", { class: line.dash ? "key dash" : "key" });
        key.style.setProperty("--key", line.colour);
        const value = make("span", { class: "value" });
        title.append(into(make("span", { class: "entry" }), key, lines.length > 1 ? `${line.name} ` : "", value));
        return value;
      });
      this.stack.append(into(make("div", { class: "panel" }), title, svg));
      return { panel, lines, y, cursor, dots, values };
    }

    draw() {
      const width = Math.floor(this.host.clientWidth);
      if (!width) return;
      this.width = width;
      this.stack.replaceChildren(this.drawStrip());
      const panels = this.data.panels;
      this.panels = panels.map((panel, place) => this.drawPanel(panel, place === panels.length - 1));
      this.stack.setAttribute("aria-valuemin", "0");
      this.stack.setAttribute("aria-valuemax", seconds(this.end));
      this.point(this.at);
    }

    // Move the cursor of every chart to a moment in ms, or take it away (null).
    point(at) {
      this.at = at === null ? null : Math.max(0, Math.min(this.end, at));
      const told = [];
      for (const one of this.panels || []) {
        const x = this.at === null ? -9 : this.x(this.at);
        one.cursor.setAttribute("x1", x);
        one.cursor.setAttribute("x2", x);
        one.lines.forEach((line, place) => {
          const found = this.at === null ? -1 : nearest(line, this.at);
          const hidden = found < 0;
          one.dots[place].setAttribute("visibility", hidden ? "hidden" : "visible");
          one.values[place].textContent = this.at === null ? "" : hidden ? "NA" : shown(line.v[found]);
          if (hidden) return;
          one.dots[place].setAttribute("cx", this.x(line.t[found]));
          one.dots[place].setAttribute("cy", one.y(line.v[found]));
          told.push(`${one.panel.title}, ${line.name} ${shown(line.v[found])}`);
        });
      }
      const phase = this.at === null ? null : this.phaseAt(this.at);
      const name = phase ? this.data.labels[phase] || phase : "";
      this.moment.replaceChildren();
      if (this.at !== null) {
        const swatch = make("span", { class: "swatch" });
        if (phase) swatch.style.setProperty("--phase", phaseColour(phase));
        this.moment.append(make("b", {}, `${seconds(this.at)} s`), " ", swatch, name);
      }
      this.stack.setAttribute("aria-valuenow", seconds(this.at || 0));
      this.stack.setAttribute("aria-valuetext",
        this.at === null ? "no moment chosen" : `${seconds(this.at)} s, ${name}. ${told.join("; ")}`);
    }

    phaseAt(ms) {
      const span = this.run.phases.find(([, start, end]) => ms >= start && ms < end);
      return span ? span[0] : null;
    }

    listen() {
      const follow = (event) => {
        const left = this.stack.getBoundingClientRect().left;
        this.point((event.clientX - left - LEFT) / (this.width - LEFT - RIGHT) * this.end);
      };
      this.stack.addEventListener("pointermove", follow);
      this.stack.addEventListener("pointerdown", follow);
      this.stack.addEventListener("pointerleave", (event) => {
        if (event.pointerType === "mouse" && document.activeElement !== this.stack) this.point(null);
      });
      this.stack.addEventListener("blur", () => this.point(null));
      this.stack.addEventListener("keydown", (event) => {
        const now = this.at === null ? 0 : this.at;
        const step = event.shiftKey ? 1000 : 100;
        const bounds = [...new Set([0, ...this.run.phases.map((span) => span[1]), this.end])].sort((a, b) => a - b);
        const moves = {
          ArrowRight: () => this.at === null ? 0 : now + step, ArrowUp: () => now + step,
          ArrowLeft: () => now - step, ArrowDown: () => now - step,
          PageDown: () => bounds.find((bound) => bound > now) ?? this.end,
          PageUp: () => bounds.findLast((bound) => bound < now) ?? 0,
          Home: () => 0, End: () => this.end, Escape: () => null,
        };
        if (!(event.key in moves) || event.ctrlKey || event.altKey || event.metaKey) return;
        event.preventDefault();
        this.point(moves[event.key]());
      });
    }
  }

  for (const host of document.querySelectorAll(".live")) {
    const source = document.getElementById(host.dataset.live);
    host.timeline = new Timeline(host, JSON.parse(source.textContent));
    host.closest(".timeline").classList.add("is-live");
  }
})();
