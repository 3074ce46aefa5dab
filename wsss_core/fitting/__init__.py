"""What every training shares: batches, optimiser, schedules, arithmetic, and the loop with its history."""
