"""What a training step costs: `python -m load_tests.learning.deep_training` prints JSON.

Twelve ids with 16 numbers each, tables filled up to a million rows, one thread. Columns are made beforehand, so that ids, the
network and the updates are measured; `features_to_columns` tells apart what it costs to get columns from samples.
"""

import argparse
import cProfile
import json
import pstats
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from headrace_core.contracts import Sample
from headrace_core.definitions.models import FeaturePath, IdInput, Model, load_model
from headrace_core.learning.inputs import Columns, InputColumns
from headrace_trainer.network.learner import Learner, pin_threads

IDS: Final = 12
EMBEDDING: Final = 16
CTR: Final = Path(__file__).resolve().parents[2] / "definitions" / "models" / "ctr.yaml"


def a_model(kind: str, rows: int, batch: int) -> Model:
    """Twelve ids and nothing else."""
    shipped = load_model(CTR)
    inputs = tuple(IdInput(f"id_{n}", FeaturePath("item", (f"id_{n}",)), f"id_{n}") for n in range(IDS))
    return replace(
        shipped,
        inputs=inputs,
        architecture=replace(shipped.architecture, kind=kind, embedding=EMBEDDING),
        training=replace(shipped.training, admission=1, capacity=rows, batch=batch),
    )


def columns(random: np.random.Generator, rows: int, batch: int) -> Columns:
    """Ids as skewed as those of users and items are: the square of a uniform number."""
    of_table = rows // IDS
    made = {}
    for n in range(IDS):
        ids = (random.random(batch) ** 2 * of_table).astype(np.int64)
        made[f"id_{n}"] = (ids + n * of_table + 1) * np.int64(0x5851F42D4C957F2D)
    return made


def filled(model: Model, rows: int) -> Learner:
    """A learner whose table is full."""
    learner, of_table, none = Learner(model), rows // IDS, np.zeros(0, np.float32)
    for start in range(0, of_table, 20_000):
        ids = np.arange(start, min(of_table, start + 20_000))
        made = {f"id_{n}": (ids + n * of_table + 1) * np.int64(0x5851F42D4C957F2D) for n in range(IDS)}
        none = np.zeros(len(ids), np.float32)
        learner.learn(made, none, none, none, 1)
    return learner


def measure(kind: str, rows: int, batch: int, steps: int) -> dict[str, Any]:
    """Figures of one architecture."""
    learner, random = filled(a_model(kind, rows, batch), rows), np.random.default_rng(1)
    fed = [columns(random, rows, batch) for _ in range(50)]
    labels = (random.random(batch) < 0.1).astype(np.float32)
    one, none = np.ones(batch, np.float32), np.zeros(batch, np.float32)
    for n in range(20):
        learner.learn(fed[n], labels, one, none, 2)
    walls, started = [], time.process_time()
    for n in range(steps):
        at = time.perf_counter()
        learner.learn(fed[n % len(fed)], labels, one, none, 3 + n)
        walls.append(time.perf_counter() - at)
    cpu = time.process_time() - started
    return {
        "rows": learner.rows()["ids"],
        "unique_ids_per_step": round(float(np.mean([len(np.unique(np.stack(list(f.values())))) for f in fed]))),
        "samples_per_cpu_second": round(batch * steps / cpu),
        "step_ms_p50": round(1000 * float(np.median(walls)), 2),
        "step_ms_p99": round(1000 * float(np.quantile(walls, 0.99)), 2),
        "profile": profile(learner, fed, labels, one, none),
    }


def profile(learner: Learner, fed: list[Columns], labels: Any, one: Any, none: Any) -> dict[str, float]:
    """Shares of a step's time by function, the greatest three."""
    profiler = cProfile.Profile()
    profiler.enable()
    for made in fed:
        learner.learn(made, labels, one, none, 10**6)
    profiler.disable()
    stats: Any = pstats.Stats(profiler)
    total = stats.total_tt
    own = sorted(((told[2], name) for name, told in stats.stats.items()), reverse=True)[:3]
    return {f"{Path(file).name}:{function}": round(seconds / total, 3) for seconds, (file, _, function) in own}


def features_to_columns(count: int) -> int:
    """Samples of the shipped model a CPU-second, from JSON to columns."""
    features = json.dumps({
        "user": {"country": "China", "gender": "male", "city": "Shanghai", "user_last_5_minutes": [
            {"item_id": str(n), "item_type": "ad", "category": "cars", "action": "view", "dwell_ms": 1_000} for n in range(10)
        ]},
        "context": {"page_id": "100", "hour": 7},
        "item": {"category": "cars", "item_type": "ad", "click_rate": {"rate": 0.1, "clicks": 2, "impressions": 20}},
    }).encode()  # fmt: skip
    samples = [
        Sample(request_id=f"r{n // 10}", user_id=f"u{n % 97}", item_id=f"i{n % 997}", page_id="100", features=features)
        for n in range(count)
    ]
    compiled = InputColumns(load_model(CTR).inputs)
    started = time.process_time()
    for n in range(0, count, 512):
        compiled.from_samples(samples[n : n + 512])
    return round(count / (time.process_time() - started))


def main() -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--batch", type=int, default=512)
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--kinds", nargs="+", default=["wide_and_deep", "dcn_v2", "linear"])
    arguments = parser.parse_args()
    pin_threads(1)
    answer: dict[str, Any] = {"ids": IDS, "embedding": EMBEDDING, "batch": arguments.batch}
    for kind in arguments.kinds:
        answer[kind] = [measure(kind, rows, arguments.batch, arguments.steps) for rows in arguments.rows]
        small, large = answer[kind][0], answer[kind][-1]
        ratio = small["samples_per_cpu_second"] / large["samples_per_cpu_second"]
        answer[kind].append({"cost_largest_over_smallest_table": round(ratio, 2)})
    answer["features_to_columns_samples_per_cpu_second"] = features_to_columns(20_000)
    print(json.dumps(answer, indent=2))


if __name__ == "__main__":
    main()
