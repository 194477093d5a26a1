"""One module a policy; each registers itself in `nclab.etf.policy.POLICIES` under the name of its YAML file."""
