"""Conformance audits: does a client do what its promise assumes?

Simulations only. Client folders that the audit writes itself are asked as a server
would ask them, and what comes out is held against what the promise takes for true. A
new check is a module here, an entry in ``checks.CHECKS``, and one test.
"""
