"""What a device needs to be a node: its keys, the code it allows, its process.

Client only: private keys belong to the device that they speak for.
"""
