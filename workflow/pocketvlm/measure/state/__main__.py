"""`python -m pocketvlm.measure.state JOURNAL`: give back what a killed block left set on one device."""

import sys

from pocketvlm.measure.state.left import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
