"""`policy_*`: which models a site allows."""

from llmhost.options.base import Section
from llmhost.options.types import Items, Line


class ModelPolicy(Section):
    """Rules for each model and all models it was derived from. Case is ignored.

    Publishers are accounts of a hub or names of organizations.
    """

    denied_publishers: Items[Line] = ()
    """Refuse models of these publishers, and models derived from them. A rule also matches names:
    `qwen` refuses `DeepSeek-R1-Distill-Qwen-14B`, whatever its publisher."""

    allowed_publishers: Items[Line] = ()
    """If not empty: the publishers of a model and of each known ancestor must be in this list, as
    must the account that published a quantized file."""

    denied_licences: Items[Line] = ()
    """Refuse models with these licenses, named as on model cards (`cc-by-nc-4.0`)."""

    allowed_licences: Items[Line] = ()
    """If not empty: the license of a model must be known and in this list."""
