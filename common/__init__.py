"""What both sides need: code that sees only its arguments."""
