"""What the operator sees of runs: metrics for Prometheus, and a page for people.

Server only, a process of its own: Flower's app processes come and go. It reads what
runs wrote into their folders and writes nothing there. Nothing of a client's rows is in
those but through released things; a client's own words are shown as fixed reasons.
"""
