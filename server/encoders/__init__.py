"""Encoders: pictures, sentences and vector files as features of items.

Server only: what they read is public, and their models are too large for a client.
"""
