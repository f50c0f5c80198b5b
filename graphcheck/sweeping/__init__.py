"""Many models: what to do, workers with a process for each task, a store that keeps results, formats that tell them."""
