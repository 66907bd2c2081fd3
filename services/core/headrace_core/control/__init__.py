"""How services speak to the control plane."""
