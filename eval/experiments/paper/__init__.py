"""The paper's printed numbers, recomputed: what adds up and what does not."""
