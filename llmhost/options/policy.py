"""`policy_*`: which models a site allows."""

from llmhost.options.base import Section
from llmhost.options.types import Items, Line


class ModelPolicy(Section):
    """Rules for a model and for every model it was made from. Case does not matter.

    Publishers are the accounts of a hub or the names of organisations.
    """

    denied_publishers: Items[Line] = ()
    """Publishers whose models, and models derived from them, are refused. A rule also matches
    names: `qwen` refuses `DeepSeek-R1-Distill-Qwen-14B`, no matter who publishes it."""

    allowed_publishers: Items[Line] = ()
    """If not empty, the publisher of a model and of each known ancestor must be one of these; the
    account that published a quantized file counts as its publisher."""

    denied_licences: Items[Line] = ()
    """Licences, as named on model cards (`cc-by-nc-4.0`), that are refused."""

    allowed_licences: Items[Line] = ()
    """If not empty, the licence of a model must be known and be one of these."""
