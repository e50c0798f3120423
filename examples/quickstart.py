"""A data frame of one's own, a leaderboard and recommendations, in ten lines."""

import polars as pl

import tandemrec as tr

events = pl.DataFrame(
    {
        "user_id": [u for u in range(60) for _ in range(6)],
        "item_id": [(u + i) % 20 for u in range(60) for i in range(6)],
    }
)
events = events.with_columns(timestamp=pl.int_range(pl.len()))
items = pl.DataFrame({"item_id": range(20), "title": [f"Volume {n}" for n in range(20)]})
dataset = tr.Dataset.from_frames(events, items, name="mine")
models = {"Popularity": {"model": "popularity"}, "EASE": {"model": "ease", "l2": 10}}
recipe = tr.load_recipe({"name": "quickstart", "split": {"protocol": "leave-one-out"}, "models": models})
finished = tr.run(recipe, dataset=dataset)
for row in finished.results["leaderboard"]:
    print(row["system"], row["metrics"]["ndcg@10"]["mean"])
history, ranking = finished.recommend(user="7", k=3)
print(history, ranking)
