"""Quality of the search API's answers: `python -m benchmarks.search --cranfield DIR`.

DIR has the Cranfield collection in TREC's form: cran.all.1400.xml, cran.qry.xml, cranqrel.trec.txt.
Settings of the service are those of its options, unless they are given as NAME=VALUE, such as
SEARCH_RRF_K=20. The first run computes the vectors, which takes minutes.
"""

import argparse
import json
import tempfile
from pathlib import Path

from benchmarks.search.cranfield import Cranfield
from benchmarks.search.quality import rows


def main() -> None:
    """A table, or with --json the same figures."""
    parser = argparse.ArgumentParser(description="Measure the quality of the search API's answers")
    parser.add_argument("--cranfield", type=Path, required=True, help="directory of the collection")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("settings", nargs="*", help="NAME=VALUE of the service's environment")
    options = parser.parse_args()
    settings = dict(each.split("=", 1) for each in options.settings)
    with tempfile.TemporaryDirectory(prefix="llmhost-search-") as directory:
        found = [*rows(Cranfield.read(options.cranfield), Path(directory), **settings)]
    if options.json:
        print(json.dumps(found, indent=2))
        return
    print("| ranking | questions | P@5 | R@10 | nDCG@10 |\n| --- | --- | --- | --- | --- |")
    for row in found:
        figures = [row[key] for key in ("precision_at_5", "recall_at_10", "ndcg_at_10")]
        cells = " | ".join(f"{figure:.3f}" for figure in figures)
        print(f"| {row['ranking']} | {row['questions']} | {cells} |")


if __name__ == "__main__":
    main()
