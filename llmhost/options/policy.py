"""`policy_*`: which models a site allows."""

from llmhost.options.base import Section


class ModelPolicy(Section):
    """Rules for a model and for every model it was made from. Upper and lower case are equal.

    Publishers are the accounts of a hub or the names of organisations.
    """

    denied_publishers: tuple[str, ...] = ()
    """Publishers whose models, and models derived from them, are refused. A rule also matches
    names: `qwen` refuses `DeepSeek-R1-Distill-Qwen-14B`, whoever publishes it."""

    allowed_publishers: tuple[str, ...] = ()
    """If not empty, the publisher of a model and of each known ancestor must be one of these;
    whoever quantised a file counts as its publisher."""

    denied_licences: tuple[str, ...] = ()
    """Licences, as named on model cards (`cc-by-nc-4.0`), that are refused."""

    allowed_licences: tuple[str, ...] = ()
    """If not empty, the licence of a model must be known and be one of these."""
