"""Many models: what to do, workers that do it in processes of their own, a store that keeps it, formats that tell it."""
