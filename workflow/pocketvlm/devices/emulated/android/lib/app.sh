# What the programs share that replay recorded apps; read by them with `.` after phone.sh, never run.
# An installed app is data/app/PACKAGE: `app` (`package`, `version`, `activity`, `start SCREEN`, `dump_ms N`), `moves`, and
# screens/NAME.xml as uiautomator dumped them. Its process (app-process) keeps data/activity/screen/PACKAGE, which names the
# screen that is shown, and reads what is done to it from data/activity/queue/PACKAGE. Nothing of it computes an answer.

# about PACKAGE WORD: what the file `app` of an installed app says after a word.
about() {
    sed -n "s/^$2 //p" "$data/app/$1/app"
}

# front_app: the package of the recorded app in front, empty when something else is.
front_app() {
    activity=$(cat "$data/activity/foreground")
    [ ! -f "$data/activity/screen/${activity%%/*}" ] || printf '%s\n' "${activity%%/*}"
}

# screen_of PACKAGE: the name of the screen that it shows.
screen_of() {
    read -r shown <"$data/activity/screen/$1" && printf '%s\n' "$shown"
}

# has SCREEN WORD PACKAGE: whether a line of `moves` begins so.
has() {
    grep -q -e "^$1 $2\\( \\|\$\\)" "$data/app/$3/moves"
}

# tell PACKAGE LINE: something is done to the app.
tell() {
    printf '%s\n' "$2" >>"$data/activity/queue/$1"
}

# awake: whether the screen is on.
awake() {
    [ "$(cat "$data/power/wakefulness" 2>/dev/null)" != Asleep ]
}
