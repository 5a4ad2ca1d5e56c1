"""What one number says of an analysed run, for tables and result files."""

from training.analysis.analyse import RunAnalysis

__all__ = ["headline"]


def headline(run: RunAnalysis) -> dict[str, float]:
    """Figures by name, those left out that the run does not have.

    `low_pass_loss` is the clean accuracy that the narrowest filter costs, `energy_B` the share of the attack's energy
    in the central B x B frequencies, `kernel_roughness` as in `training.analysis.smoothness`, `recall_at_1_attacked`
    the share of attacked images whose nearest clean one has their class, and `attacked_accuracy_lost` what PGD accuracy
    on the measured part fell from its best epoch to the last (robust overfitting).
    """
    figures: dict[str, float | None] = {
        "clean_accuracy": run.clean_accuracy,
        "attacked_accuracy": run.attacked_accuracy,
        "low_pass_loss": run.low_pass.clean[0] - run.low_pass.clean[-1],
    }
    for band, share in zip(run.spectrum.bands, run.spectrum.energy_shares, strict=True):
        figures[f"energy_{band}"] = share
    figures |= {
        "kernel_roughness": run.kernels.roughness if run.kernels else None,
        "heat_map_correlation": run.heat_map.correlation,
        "recall_at_1_attacked": run.neighbours.recall_at_1.attacked,
        "within_distance_clean": run.distances.clean.within,
        "within_distance_attacked": run.distances.attacked.within,
        "between_distance_clean": run.distances.clean.between,
    }
    attacked = run.curves.accuracies.get("attacked_accuracy")
    if attacked is not None and attacked.values:
        figures["attacked_accuracy_lost"] = max(attacked.values) - attacked.values[-1]
    return {name: value for name, value in figures.items() if value is not None}
