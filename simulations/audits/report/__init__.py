"""An audit as a page, on screen and on paper. Simulations only: auditors read it."""
