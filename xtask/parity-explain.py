#!/usr/bin/env python3
"""Sorts what a replay found different into what is explained and what is not.

parity-explain.py REPLAY.json KNOWN.tsv [--show N]
A line of KNOWN.tsv: id, regex over the case's name, regex over a difference ("path | expected | actual"), reason; tabs between.
An id with a plus behind it also explains what follows in the same case: a write that only one side accepted changes all after it.
A case is explained when each of its differences matches a line. Ends with the groups' counts and how often each line applied.
"""
import collections
import json
import re
import sys


def main():
    replay, known = sys.argv[1], sys.argv[2]
    show = int(sys.argv[sys.argv.index("--show") + 1]) if "--show" in sys.argv else 3
    rules = []
    for line in open(known, encoding="utf-8"):
        line = line.rstrip("\n")
        if line and not line.startswith("#"):
            name, case, difference, _reason = line.split("\t")
            rules.append((name, re.compile(case), re.compile(difference, re.S)))
    found = json.load(open(replay, encoding="utf-8"))
    explained, used, open_cases = collections.Counter(), collections.Counter(), 0
    for failure in found["failures"]:
        unknown, names, follows = [], set(), False
        for step in failure["steps"]:
            for d in step["differences"]:
                text = " | ".join([d["path"]] + [x if isinstance(x, str) else json.dumps(x, ensure_ascii=False) for x in (d["expected"], d["actual"])])
                rule = next((n for n, case, difference in rules if case.search(failure["case"]) and difference.search(text)), None)
                if rule:
                    names.add(rule.rstrip("+"))
                    follows = follows or rule.endswith("+")
                elif not follows:
                    unknown.append((step, text))
        if unknown:
            open_cases += 1
            if show:
                print("UNEXPLAINED " + failure["case"])
            for step, text in unknown[:show]:
                print(f"  {step['step']} {step['method']} {step['path']}\n    {text[:300]}")
        else:
            explained[failure["group"]] += 1
            used.update(names)
    total = [0, 0, 0]
    for name, g in found["groups"].items():
        row = [g["identical"], explained[name], g["cases"]]
        total = [a + b for a, b in zip(total, row)]
        print(f"{name:<12} {row[0]:>4} identical {row[1]:>4} explained {row[2] - row[0] - row[1]:>4} not, of {row[2]} cases ({g['requestsIdentical']} of {g['requests']} requests)")
    print(f"{'TOTAL':<12} {total[0]:>4} identical {total[1]:>4} explained {open_cases:>4} not, of {total[2]} cases ({found['total']['requestsIdentical']} of {found['total']['requests']} requests)")
    for name, count in used.most_common():
        print(f"  {name}: {count} cases")
    return 1 if open_cases else 0


sys.exit(main())
