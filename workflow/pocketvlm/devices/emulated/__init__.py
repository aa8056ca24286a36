"""The emulated phone: a real adbd on one loopback address, arm64 code under qemu-user, modelled sensors."""
