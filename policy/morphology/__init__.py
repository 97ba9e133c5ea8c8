"""The paper's v3 for MuJoCo: a looped policy that is told the body it moves."""
