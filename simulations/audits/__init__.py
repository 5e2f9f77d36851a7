"""Audits: what attacks achieve against a run, beside what the run promises.

Simulations only: an auditor holds the ground truth that no party of a run has, and the
attacks read what was released. Start with ``audit.run_audit``.
"""
