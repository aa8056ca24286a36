/* `probe sensors`: what can be read on this device. */
#ifndef PROBE_DISCOVER_H
#define PROBE_DISCOVER_H

/* Print a line a file: category, path, "yes" or the error's name, the first line of its content. `root` is put
 * before paths of /sys and /dev. Returns the probe's exit code. */
int discover(const char *root);

#endif
