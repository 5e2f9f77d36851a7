"""Recommendations on the device: a gRPC service over one client's folder.

Client only: it holds the folder's histories and its users' personal parameters. It
answers whoever may call it, by default this machine's own user, and sends nothing
anywhere by itself.
"""
