"""Compare two sets of vectors whose dimensions may differ, and how much of one data set another one covers."""
