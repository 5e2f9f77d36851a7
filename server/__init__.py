"""What the server runs: sees public data and what arrived from many clients."""
