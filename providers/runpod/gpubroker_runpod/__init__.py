"""RunPod as a provider."""
