"""Reads metrics from standard input with Prometheus' own client library. Prints, as JSON, for each
family its name, its type and the names of its labels, and all samples as [name, labels, value].
"""

import json
import sys

from prometheus_client.parser import text_string_to_metric_families

families, samples = [], []
for family in text_string_to_metric_families(sys.stdin.read()):
    # The library takes the ending off the name of a counter.
    name = family.name + ("_total" if family.type == "counter" else "")
    labels = {label for sample in family.samples for label in sample.labels} - {"le"}
    assert family.documentation, name
    families.append([name, family.type, sorted(labels)])
    samples += [[sample.name, sample.labels, float(sample.value)] for sample in family.samples]
json.dump({"families": families, "samples": samples}, sys.stdout)
