"""Integrity: what clients that lie achieve, and what robust aggregation leaves of it.

Simulations only: who lies, and the held-out users by whom it is measured, are ground
truth. A privacy promise says nothing about integrity. Start with
``grid.audit_integrity``.
"""
