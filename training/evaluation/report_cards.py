"""The cards of the page: threat model, settings of the attacks, and where the figures come from."""

from html import escape

from training.evaluation.report_further import cost_rows
from training.evaluation.results import Report
from training.evaluation.tables import budget, table

__all__ = ["provenance_card", "settings_table", "threat_card"]


def threat_card(report: Report) -> str:
    """What the attackers could and could not do, and about which bundle, seed and commit the figures are."""
    threat = report.threat_model
    rows = [
        ("Trained for", f"{'L∞' if threat.norm == 'linf' else 'L2'} changes up to {budget(threat.eps)}"),
        ("L2 budget", f"{threat.l2_eps:.3g}"),
        ("Goal", "a chosen wrong class" if threat.targeted else "any wrong class"),
        ("Attacker knows", threat.knowledge),
        ("Knows the detectors", "the adaptive attacks do" if threat.adaptive else "no: these are non-adaptive figures"),
        ("Questions to the model", threat.queries),
        ("Answers shown", threat.reveal_mode),
        ("Rounding", threat.rounding),
        ("Bundle", f"{report.bundle.name} {report.bundle.version}, {report.bundle.calibration_id}"),
        ("Seed and commit", f"{report.provenance.seed}; {report.provenance.commit}"),
    ]
    return table(["", ""], ([escape(name), escape(value)] for name, value in rows), kind="card-table")


def settings_table(report: Report) -> str:
    """Of each attack, with the time that it took."""
    rows = (
        [escape(attack.title), f"<code>{escape(attack.settings)}</code>", f"{attack.seconds:.1f} s"]
        for attack in report.attacks
    )
    return table(["Attack", "Settings", "Time"], rows, kind="settings")


def provenance_card(report: Report) -> str:
    """Files, data, code and machine behind the figures."""
    made, bundle, clean = report.provenance, report.bundle, report.clean
    rows = [
        ("Bundle", f"{bundle.name} {bundle.version}, exported by {bundle.code_version}"),
        ("Graph, sha-256", bundle.sha256["model.onnx"]),
        ("Calibration, sha-256", bundle.sha256["calibration.npz"]),
        (
            "Calibration images",
            f"{bundle.calibration_images} for the detectors, {bundle.fused_calibration_images} fused",
        ),
        ("Data", f"{report.data.name}, {report.data.split}: {report.data.test_images} images"),
        ("Labels that differ", f"{clean.disagreements} of {clean.compared} between torch and the bundle"),
        ("Code", f"advsentry {made.code_version}, commit {made.commit}"),
        ("Libraries", ", ".join(f"{name} {version}" for name, version in made.libraries.items())),
        *cost_rows(report),
        ("Machine", made.machine),
        ("Seed and time", f"{made.seed}; {made.seconds:.0f} s"),
    ]
    return table(["", ""], ([escape(name), escape(value)] for name, value in rows), kind="card-table")
