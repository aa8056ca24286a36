"""Frameworks that are driven through their Android app: scripts, screens, statistics. Nothing meets a device.

`script` is the language in which a person says how an app is used, `screen` reads what uiautomator dumps,
`keys` says what can be typed, `logs` reads logcat's lines, `statistics` finds the app's own numbers in texts
that were read, and `record` is what the driver (`measure.app`) leaves of a run for the analysis.
"""
