"""Results as Markdown tables."""

from collections.abc import Callable, Sequence
from typing import Any

from hpjax.compiled.kernels import LAUNCH, SHARE_OF_BANDWIDTH, SHARE_OF_FLOPS
from systems.system import OF_HPJAX


def epoch_table(result: dict[str, Any]) -> str:
    """Returns the systems of one contest, the fastest first, and how hpjax compares with each of them."""
    systems = result["systems"]
    able = {name: s for name, s in systems.items() if "unavailable" not in s}
    ranked = sorted(able, key=lambda name: able[name]["epoch_seconds"]["median"])
    ours = [name for name in OF_HPJAX if name in able]
    head = ["system", "images/s", "ms per trial and step", "TFLOP/s", "of the floor's speed"]
    rows = [[*_speed_cells(name, able[name]), *_ratio_cells(name, ours, result["ratios"])] for name in ranked]
    table = format_table([*head, *(f"{name} is faster by" for name in ours)], rows)
    out = [f"Unavailable: {name} ({s['unavailable']})." for name, s in systems.items() if name not in able]
    return "\n\n".join([_title(result), _contest_line(result), table, *out])


def scaling_table(result: dict[str, Any]) -> str:
    """Returns a row per number of lanes, and the knee."""
    head = ["lanes", "ms per lane and step", "images/s", "memory", "compile"]
    rows = [_scaling_row(row) for row in result["rows"]]
    return "\n\n".join([_title(result), f"Knee: {result['knee']} lanes.", format_table(head, rows)])


def startup_table(result: dict[str, Any]) -> str:
    """Returns the seconds to the first step and to the first epoch, which has but one, cold and warm."""
    steps, epochs = result["first_step_seconds"], result["first_epoch_seconds"]
    rows = [
        [kind, str(epochs[kind]["n"]), _with_spread(steps[kind], 1), _with_spread(epochs[kind], 1)]
        for kind in epochs
    ]
    head = ["cache", "n", "seconds to the first step", "seconds to the first epoch of all trials"]
    return "\n\n".join([_title(result), format_table(head, rows)])


def allocator_table(result: dict[str, Any]) -> str:
    """Returns a row for each allocator and setting: what each system gains over the C library's malloc."""
    rows = result["rows"]
    systems = result["settings"]["systems"]
    head = ["allocator", *(f"{name}, images/s" for name in systems), *(f"{name} gains" for name in systems)]
    table = [_allocator_row(row, systems) for row in rows if "unavailable" not in row]
    out = [f"Unavailable: {row['name']} ({row['unavailable']})." for row in rows if "unavailable" in row]
    what = f"n = {result['settings']['rounds']} rounds, the rows in turn; medians, quartiles in brackets."
    return "\n\n".join([_title(result), what, format_table(head, table), *out])


def conv_table(result: dict[str, Any]) -> str:
    """Returns the fastest lowerings of each convolution, and the one that hpjax chooses."""
    head = ["layer", "operation", "lanes", "fastest", "second", "chosen"]
    return "\n\n".join([_title(result), format_table(head, [_conv_row(row) for row in result["rows"]])])


def kernel_table(result: dict[str, Any]) -> str:
    """Returns the kernels that a step spends the most time in."""
    rows = [
        [f"`{row['op']}`", f"`{row['kernel'][:60]}`", f"{row['calls']:g}", f"{row['us']:,.0f}"]
        for row in result["rows"][:12]
    ]
    what = f"All kernels of a step: {result['us_per_step']:,.0f} µs, as traced; the longest:"
    head = ["instruction", "kernel", "calls", "µs a step"]
    return "\n\n".join([_title(result), what, format_table(head, rows)])


def search_table(result: dict[str, Any]) -> str:
    """Returns a row per round and peer: what each found, and when hpjax had the other's best."""
    peer, ours = ["seconds", "its best", "found after"], ["hpjax has it after", "of the peer's time"]
    head = ["round: peer", *peer, *ours, "hpjax in all", "hpjax's best"]
    rows = [
        _search_row(f"{index}: {name.replace('_', ' ')}", found, searches["hpjax"])
        for index, searches in enumerate(result["rounds"])
        for name, found in searches.items()
        if name != "hpjax"
    ]
    s = result["settings"]
    more = s.get("trials_of_hpjax", s["trials"])
    what = (
        f"{s['trials']} settings of up to {s['epochs']} epochs on {s['data']}; hpjax tries {more}, with"
        f" {s['lanes']} lanes, sampler {s['sampler']}, successive halving. Seconds from the start, with an"
        " empty cache."
    )
    return "\n\n".join([_title(result), what, format_table(head, rows)])


def overhead_table(result: dict[str, Any]) -> str:
    """Returns what the study itself costs a trial, among the first and the last of them."""
    s = result["settings"]
    what = (
        f"{s['trials']:,} trials of one epoch through {s['lanes']} lanes; sampler {s['sampler']},"
        f" pruner {s['pruner']}. All but training, evaluation and the files that are written from time to"
        " time (tables, the page, checkpoints): those as a share of all the time."
    )
    head = ["trials", "ms of the study per trial", "of them at work", "files", "memory held"]
    rows = [_overhead_row(name, result[f"{name}_quarter"]) for name in ("first", "last")]
    shape = {name: value for name, value in s.items() if name != "lanes"}
    return "\n\n".join([_title({**result, "settings": shape}), what, format_table(head, rows)])


def workers_table(result: dict[str, Any]) -> str:
    """Returns what several workers train in the time of one."""
    s = result["settings"]
    what = (
        f"{s['lanes']} trials of {s['epochs']} epochs of {s['examples']} images through the command line; all"
        " of a device's lanes in one call, which isn't what one process would choose for two cores."
        f" n = {s['repeats']}, quartiles in brackets."
    )
    head = ["trained by", "images/s", "of one process on one core", "seconds from command to end"]
    rows = [
        [
            name,
            _with_spread(row["images_per_second"], 0),
            _with_spread(row["speedup"], 2),
            _with_spread(row["command_seconds"], 0),
        ]
        for name, row in result["systems"].items()
    ]
    shape = {"model": "custom_cnn", "batch_size": 10, "image_size": s["image_size"]}
    return "\n\n".join([_title({**result, "settings": shape}), what, format_table(head, rows)])


def checkpoint_table(result: dict[str, Any]) -> str:
    """Returns what saving the population adds to the time of a sweep."""
    s, seconds, cost = result["settings"], result["seconds"], result["cost"]
    what = (
        f"Sweeps of {s['epochs']} epochs of {s['steps']} steps, {cost['n']} pairs; seconds from the first"
        " epoch to the end of the process."
    )
    share = {"median": 100 * cost["median"], "quartiles": [100 * value for value in cost["quartiles"]]}
    saved = " to ".join(str(n) for n in sorted({min(result["checkpoints"]), max(result["checkpoints"])}))
    head = ["checkpoints written", "saving", "not saving", "saving costs"]
    row = [saved, *(_with_spread(seconds[kind], 2) for kind in ("saving", "not_saving"))]
    table = format_table(head, [[*row, f"{_with_spread(share, 1)} %"]])
    return "\n\n".join([_title(result), what, table])


def accuracy_table(result: dict[str, Any]) -> str:
    """Returns a row per weight decay: mean test accuracy and standard deviation of hpjax and of PyTorch."""
    s = result["settings"]
    what = (
        f"Test accuracy on {s['test']:,} photographs after {s['epochs']} epochs on {s['train']:,}, Adam at"
        f" {s['learning_rate']:g}; mean and standard deviation of {s['seeds']} seeds, difference and its"
        " standard error."
    )
    head = ["weight decay", "hpjax", "PyTorch", "difference in points"]
    rows = [_accuracy_row(row) for row in result["rows"]]
    return "\n\n".join([_title(result), what, format_table(head, rows)])


def compiled_table(results: Sequence[dict[str, Any]]) -> str:
    """Returns a row for each program that was compiled for a GPU: what it would launch, compute and move."""
    versions = sorted({f"jax {result['versions']['jax']}" for result in results})
    what = (
        f"**gpu_compile** ({', '.join(versions)}). Compiled, not timed: what the compiler's own listing says"
        " of one step of all lanes, or of one evaluation, admission or copy. The roofline adds up every"
        f" kernel's bytes at {100 * SHARE_OF_BANDWIDTH:.0f} % of the bandwidth or its multiplications at"
        f" {100 * SHARE_OF_FLOPS:.0f} % of the arithmetic that the data sheet promises, whichever takes"
        f" longer; then with {1e6 * LAUNCH:.0f} µs a kernel at least. Library calls, by groups and window,"
        " are in the files."
    )
    head = ["network", "lanes", "program", "kernels", "GFLOP", "GB a lane", "only moved", "temporary GB"]
    head += ["µs a lane", "with launches"]
    ordered = sorted(results, key=_compiled_order)
    found = [(result, name, row) for result in ordered for name, row in result["rows"].items()]
    rows = [_compiled_row(*each) for each in found if "unavailable" not in each[2]]
    out = [
        f"Unavailable: {_network(result)}, {result['settings']['lanes']} lanes, {name}: {row['unavailable']}."
        for result, name, row in found
        if "unavailable" in row
    ]
    return "\n\n".join([what, format_table(head, rows), *out])


def _compiled_order(result: dict[str, Any]) -> tuple:
    s = result["settings"]
    return s["model"] != "resnet18", -s["image_size"], s["batch_size"], s["precision"], s["lanes"]


def _network(result: dict[str, Any]) -> str:
    s = result["settings"]
    return f"{s['model']}, {s['image_size']} px, b{s['batch_size']}, {s['precision']}"


def _compiled_row(result: dict[str, Any], name: str, row: dict[str, Any]) -> list[str]:
    lanes = result["settings"]["lanes"]
    moved = [f"{row[key] / lanes:.2f}" for key in ("gb", "gb_moved_only")]
    return [
        _network(result),
        str(lanes),
        name,
        str(row["kernels"]),
        f"{row['gflop']:,.0f}",
        *moved,
        f"{row['temp_gb']:.2f}",
        f"{row['lane_step_us']:,.0f}",
        f"{row['lane_step_us_with_launches']:,.0f}",
    ]


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {
    "epoch_time": epoch_table,
    "scaling": scaling_table,
    "startup": startup_table,
    "allocators": allocator_table,
    "conv_lowerings": conv_table,
    "step_kernels": kernel_table,
    "search_time": search_table,
    "overhead": overhead_table,
    "accuracy": accuracy_table,
    "checkpoint_cost": checkpoint_table,
    "workers": workers_table,
}
TABLES_OF_ALL: dict[str, Callable[[Sequence[dict[str, Any]]], str]] = {"gpu_compile": compiled_table}


def format_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Returns a Markdown table; all columns but the first are right-aligned."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _title(result: dict[str, Any]) -> str:
    s = result["settings"]
    shape = [f"{s['model']}, {s['image_size']} px, batch {s['batch_size']}"]
    shape += [f"{s['lanes']} trial{'s' * (s['lanes'] > 1)}"] if "lanes" in s else []
    shape += [s["precision"]] if "precision" in s else []
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    made = f"{result['date'][:10]}, {result['cores']} cores, {versions}; `{result['file']}`"
    remark = f": {result['remark']}" if "remark" in result else ""
    return f"**{result['benchmark']}: {', '.join(shape)}**{remark} ({made})"


def _contest_line(result: dict[str, Any]) -> str:
    ceilings, losses = result["ceilings"], result["losses"]
    n = max((s["epoch_seconds"]["n"] for s in result["systems"].values() if "epoch_seconds" in s), default=0)
    best = f" Best number of processes: `{result['best_processes']}`." if result["best_processes"] else ""
    allocator = f" Memory from {result['allocator']}." if "allocator" in result else ""
    return (
        f"n = {n} epochs of {result['settings']['steps']} steps; medians, quartiles in brackets. Ceilings:"
        f" {ceilings['flops'] / 1e12:.3g} TFLOP/s in a matrix product,"
        f" {ceilings['bytes_per_second'] / 1e9:.3g} GB/s in a copy. hpjax's systems differ by at most"
        f" {losses['largest_relative_difference']:.1e} in the first epoch's losses.{allocator}{best}"
    )


def _speed_cells(name: str, system: dict[str, Any]) -> list[str]:
    return [
        name,
        f"{system['images_per_second']:,.0f}",
        f"{system['lane_step_milliseconds']:.2f}",
        f"{system['tflops']:.3f}",
        f"{100 * system['share_of_floor']:.0f} %",
    ]


def _ratio_cells(name: str, ours: Sequence[str], ratios: dict[str, Any]) -> list[str]:
    found = [ratios.get(f"{mine} / {name}") for mine in ours]
    return [_with_spread(ratio, 2) + "x" if ratio else "" for ratio in found]


def _scaling_row(row: dict[str, Any]) -> list[str]:
    memory, compiling = f"{row['memory_bytes'] / 2**20:,.0f} MiB", f"{row['compile_seconds']:.1f} s"
    if "unavailable" in row:
        return [str(row["lanes"]), row["unavailable"], "", memory, compiling]
    time = _with_spread(row["lane_step_milliseconds"], 2)
    return [str(row["lanes"]), time, f"{row['images_per_second']:,.0f}", memory, compiling]


def _allocator_row(row: dict[str, Any], systems: Sequence[str]) -> list[str]:
    settings = " ".join(f"{name}={value}" for name, value in row["settings"].items())
    speeds = [f"{row['systems'][name]['images_per_second']:,.0f}" for name in systems]
    gains = [_with_spread(row["systems"][name]["gain"], 2) + "x" for name in systems]
    return [f"{row['allocator']} {settings}".strip(), *speeds, *gains]


def _conv_row(row: dict[str, Any]) -> list[str]:
    ranked = sorted(row["lowerings"], key=lambda name: row["lowerings"][name]["median_ms"])
    cells = [_lowering_cell(row, name) for name in [*ranked, "", ""][:2]]
    first = [row["layer"]["name"], row["op"], str(row["lanes"])]
    return [*first, *cells, _lowering_cell(row, row["chosen"])]


def _lowering_cell(row: dict[str, Any], name: str) -> str:
    lowering = row["lowerings"].get(name)
    return f"{name} {lowering['median_ms']:.2f} ms" if lowering else name


def _search_row(name: str, peer: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    reached = peer["reached"]
    found = [f"{reached:.0f} s", f"{100 * peer['share_of_the_search']:.0f} %"] if reached else ["never", ""]
    first = [name, f"{peer['seconds']:.0f} s", f"{peer['best']:.4f}", f"{peer['curve'][-1][0]:.0f} s"]
    return [*first, *found, f"{ours['seconds']:.0f} s", f"{ours['best']:.4f}"]


def _overhead_row(name: str, quarter: dict[str, Any]) -> list[str]:
    milliseconds = [f"{quarter[key]:.2f}" for key in ("study_ms_per_trial", "study_processor_ms_per_trial")]
    share, held = f"{100 * quarter['paced_share']:.1f} %", f"{quarter['resident_mib']:,.0f} MiB"
    return [f"{name} {quarter['trials']:,}", *milliseconds, share, held]


def _accuracy_row(row: dict[str, Any]) -> list[str]:
    means = [
        f"{row[name]['mean']:.3f} ± {row[name]['standard_deviation']:.3f}" for name in ("hpjax", "torch")
    ]
    difference = f"{100 * row['difference']:+.1f} ± {100 * row['standard_error']:.1f}"
    return [f"{row['weight_decay']:g}", *means, difference]


def _with_spread(described: dict[str, Any], digits: int) -> str:
    first, third = described["quartiles"]
    return f"{described['median']:.{digits}f} ({first:.{digits}f}–{third:.{digits}f})"
