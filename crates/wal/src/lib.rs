//! A segmented, checksummed log of atomic batches with group commit, recovery and reclaim. Knows nothing of mail.
