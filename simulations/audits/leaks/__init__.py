"""What else a recommender leaks: items, attributes, whole histories.

Simulations only: attacks on what a run released, on its personal parameters and on
its serving API, judged by ground truth that no attacker has.
"""
