"""What stands between the SuperLink and the world: certificates and services.

Server only: the operator's own files, made before any device is asked for anything.
"""
