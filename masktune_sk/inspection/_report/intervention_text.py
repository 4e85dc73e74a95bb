"""What was done to the net, in tables."""

from .blocks import Table, Text, percent

__all__ = ["describe_intervention"]


def describe_intervention(facts):
    """Return the blocks about masks, branches or a concept."""
    done = facts["intervention"]
    if done is None:
        return []
    describe = {"masks": _masks, "branches": _branches, "concept": _concept}
    return describe[done["kind"]](done, facts)


def _masks(done, facts):
    training, hidden = done["training"], done["hidden"]
    text = {
        "saliency": "hides what the first net looks at, and trains on",
        "random": "hides as much at random places, as a control, and trains on",
        "none": "hides nothing and trains on as long, as a control; the table tells "
        "what would be hidden",
    }[done["masking"]]
    rounds = training["n_mask_rounds"]
    text = f"{facts['estimator']['name']} {text}."
    if done["masking"] != "none":
        text += (
            f" Of the training samples {percent(training['masked_fraction'])} % was "
            f"hidden on average{f', in round {rounds}' if rounds > 1 else ''}; of "
            f"{training['n_empty_masks']} of {training['n_train']} the threshold rule "
            "hid nothing by itself."
        )
    by = facts["accuracy"]["by"]
    rows = [
        (f"class {name}", percent(share)) for name, share in hidden["classes"].items()
    ]
    if by == "group":
        rows += [
            (f"group {name}", percent(share)) for name, share in hidden["parts"].items()
        ]
    rows.append(("All samples", percent(hidden["all"])))
    caption = "How much is hidden of the samples of this report, in % of a sample"
    return [
        Text(text),
        Table(
            caption,
            ("Samples", "hidden, %"),
            tuple(rows),
            strong=(len(rows) - 1,),
        ),
    ]


def _branches(done, facts):
    apart = done["separation"]
    how = (
        "as the parameter debiased_branch says"
        if done["given"]
        else "by the samples that early training got wrong; a guess, if both branches "
        "do alike there"
    )
    text = (
        f"The {done['debiased_branch']} branch was taken for the debiased one, {how}."
    )
    if apart["starved"]:
        text += f" The {apart['starved']} branch learned nothing."
    rows = [
        ("Branches disagree", percent(apart["disagreement"])),
        ("The biased branch is wrong", percent(apart["biased_wrong"])),
        (
            "Likely bias-conflicting (conflict score above 0.5)",
            percent(done["conflict_score_above_half"]),
        ),
    ]
    shares = Table("Of the training samples", ("What", "%"), tuple(rows))
    scores = [
        (name, percent(values["shallow"]), percent(values["deep"]))
        for name, values in (
            ("Accuracy", apart["accuracy"]),
            ("Balanced accuracy", apart["balanced_accuracy"]),
        )
    ]
    if done["role_scores"] is not None:
        roles = done["role_scores"]
        scores.append(
            (
                f"Balanced accuracy on the {roles['n_hard']} that early ERM got wrong",
                percent(roles["shallow"]),
                percent(roles["deep"]),
            )
        )
    both = Table(
        "The branches on the training samples",
        ("%", "shallow", "deep"),
        tuple(scores),
    )
    blocks = [Text(text), shares, both]
    if done["layers"] is None:
        why = f"What each layer knows: {done['layers_why_not']}"
        blocks.append(Text(why, left_out=True))
    return blocks


def _concept(done, facts):
    weight = done["penalty_weight"]
    text = f"{facts['estimator']['name']} corrects the layer {done['layer']!r}"
    text += "." if weight is None else f", with a penalty of weight {weight:g}."
    blocks = [Text(text)]
    if done["concepts"] is None:
        why = "How the concept was found: no samples with and without it were given."
        blocks.append(Text(why, left_out=True))
    else:
        rows = tuple(
            (
                f"concept {i}",
                str(one["n_concept"]),
                str(one["n_clean"]),
                f"{one['auc']:.3f}",
                f"{one['gap']:.3g}",
            )
            for i, one in enumerate(done["concepts"])
        )
        head = ("Concept", "n with", "n without", "AUC, held out", "gap")
        blocks.append(Table("How well the concept is found", head, rows))
    if done["artifact_relevance_before"] is not None:
        rows = tuple(
            (when, percent(done[f"artifact_relevance_{when}"]))
            for when in ("before", "after")
        )
        caption = "Share of what the net looks at that is the artifact"
        blocks.append(Table(caption, ("Net", "%"), rows))
    if done["sensitivity_before"] is None:
        why = "What the concept is worth to the logits: no direction is known."
        return [*blocks, Text(why, left_out=True)]
    columns = ("sensitivity_before", "sensitivity_after", "tcav_before", "tcav_after")
    n_concepts = len(done["sensitivity_before"])
    for i in range(n_concepts):
        rows = tuple(
            (label, *(f"{done[name][i][k]:.3g}" for name in columns))
            for k, label in enumerate(done["classes"])
        )
        head = ("Class", "logits before", "after", "TCAV before", "after")
        which = f"concept {i}" if n_concepts > 1 else "the concept"
        caption = f"What {which} is worth to each class's logit"
        blocks.append(Table(caption, head, rows))
    return blocks
