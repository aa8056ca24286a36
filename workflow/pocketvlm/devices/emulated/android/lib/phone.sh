# What the emulated phone's programs share; read by them with `.`, never run.
phone=${POCKETVLM_PHONE:?is not set: this program runs on the emulated phone only}
data=$phone/data

# fail TEXT: what Android's shell commands do with what they do not take (status -1).
fail() {
    printf '%s\n' "$1" >&2
    exit 255
}

# store FILE VALUE: a file is the old one or the new one, whoever reads it when.
store() {
    mkdir -p "${1%/*}"
    printf '%s\n' "$2" >"$1.$$" && mv -f "$1.$$" "$1"
}

# setting TABLE KEY: its value, `null` where it has none.
setting() {
    if [ -f "$data/settings/$1/$2" ]; then cat "$data/settings/$1/$2"; else echo null; fi
}

# known PACKAGE: whether it is installed.
known() {
    grep -Fqx -e "$1" "$data/system/packages.list"
}

# node PATH: the first line of a file below the phone's folder, which the model pads with line feeds.
node() {
    IFS= read -r first <"$phone/$1" && printf '%s\n' "$first"
}

# frames: the file of the last frames, whole: the model may be writing it.
frames() {
    for try in 1 2 3 4 5; do
        seen=$(cat "$data/hal/frames")
        set -- ${seen%%"
"*}
        [ "${seen##*"
"}" != "end ${3-}" ] || break
    done
    printf '%s\n' "$seen"
}
