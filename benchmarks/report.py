"""The measured numbers as Markdown tables, put where the documentation shows them."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
BEGIN, END = "<!-- benchmarks: {} -->", "<!-- end -->"


def write_tables(results: dict) -> None:
    """Replace the tables of docs/performance.md, which stand between two comments each."""
    tables = {"summary": summary(results), "comparisons": comparisons(results), "growth": growths(results)}
    path = ROOT / "docs/performance.md"
    text = path.read_text(encoding="utf-8")
    for name, table in tables.items():
        pattern = re.escape(BEGIN.format(name)) + ".*?" + re.escape(END)
        text = re.sub(pattern, lambda _: f"{BEGIN.format(name)}\n{table}\n{END}", text, flags=re.DOTALL)  # noqa: B023
    path.write_text(text, encoding="utf-8")


def summary(results: dict) -> str:
    """The ratio of each stage's first case, on a CPU and on a GPU."""
    ratios = {
        device: {(e["stage"], e["case"]): e for e in _entries(results, device, "comparison")} for device in results
    }
    first = {}
    for stage, case in (key for entries in ratios.values() for key in entries):
        first.setdefault(stage, (stage, case))
    rows = []
    for key in first.values():
        cpu, cuda = (ratios.get(device, {}).get(key) for device in ("cpu", "cuda"))
        usual = (cpu or cuda)["usual"]
        rows.append([*key, usual, *(_ratio(entry) for entry in (cpu, cuda))])
    return table(["stage", "case", "compared with", "times faster, CPU", "GPU"], rows)


def comparisons(results: dict) -> str:
    """All that was measured of each comparison, one table a device."""
    header = ["stage", "case", "the usual way", "usual", "here", "ratio", "memory usual", "memory here", "results"]
    parts = []
    for device in results:
        rows = [
            [
                e["stage"],
                e["case"],
                e["usual"],
                seconds(e["usual_seconds"]),
                seconds(e["seconds"]),
                f"{e['ratio']:,.2f}" if e["ratio"] < 10 else f"{e['ratio']:,.0f}",
                f"{e['usual_memory']:,.0f} MB",
                f"{e['memory']:,.0f} MB",
                e["agreement"],
            ]
            for e in _entries(results, device, "comparison")
        ]
        parts.append(f"{_machine(results[device]['machine'])}\n\n{table(header, rows)}")
    return "\n\n".join(parts)


def growths(results: dict) -> str:
    """How the cost of each stage grows."""
    rows = [
        [
            e["stage"],
            e["quantity"],
            ", ".join(f"{value:,.0f}: {seconds(s)}" for value, s in zip(e["values"], e["seconds"], strict=True)),
            f"{e['exponent']:.2f}",
        ]
        for e in _entries(results, "cpu", "growth")
    ]
    return table(["stage", "over", "measured", "exponent"], rows)


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def seconds(value: float) -> str:
    """Seconds or milliseconds with three digits."""
    return f"{value:.3g} s" if value >= 1 else f"{1000 * value:.3g} ms"


def _ratio(entry: dict | None) -> str:
    if entry is None:
        return "not measured"
    return f"{entry['ratio']:.1f}" if entry["ratio"] < 10 else f"{entry['ratio']:,.0f}"


def _entries(results: dict, device: str, kind: str) -> list[dict]:
    stages = results.get(device, {"stages": {}})["stages"]
    return [entry for name in stages for entry in stages[name] if entry["kind"] == kind]


def _machine(m: dict) -> str:
    gpu = f", {m['gpu']}" if m["gpu"] else ""
    return (
        f"Measured on {m['cpu']}{gpu}, {m['cores']} cores, {m['memory_gb']} GB, {m['threads']} threads, "
        f"Python {m['python']}, torch {m['torch']}, NumPy {m['numpy']}:"
    )
