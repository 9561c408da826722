"""How properties are tested: on noisy machines, and with the same examples in every run."""

import hypothesis

hypothesis.settings.register_profile(
    "llmhost",
    deadline=None,
    derandomize=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("llmhost")
