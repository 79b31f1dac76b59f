"""How each metric is printed and judged."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Measure:
    """How a metric is printed and judged: its name, the factor to its unit, the margin δ of a difference in it."""

    name: str
    unit: str
    scale: float
    margin: float
    higher_is_better: bool
    digits: int

    @property
    def label(self) -> str:
        """The metric with its unit."""
        return f"{self.name}, {self.unit}".removesuffix(", ").replace("points", "%")

    @property
    def change(self) -> str:
        """A difference in the metric with its unit."""
        return f"{self.name}, {self.unit}".removesuffix(", ")


MEASURES: dict[str, Measure] = {
    "accuracy": Measure("accuracy", "points", 100, 0.3, higher_is_better=True, digits=2),
    "nll_scaled": Measure("NLL after scaling", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "ece": Measure("ECE", "", 1, 0.01, higher_is_better=False, digits=3),
    "kl_posterior": Measure("KL from the truth", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "kl_posterior_scaled": Measure("KL at the best τ", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "kl_dark": Measure("KL on wrong classes", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "train_nll": Measure("training loss", "nats", 1, 0.02, higher_is_better=False, digits=3),
    # No paper names margins for these. In nats as for likelihoods; diversity has a wider one, since its estimate from
    # neighbours is noisy; 1 − S has half of ECE's, since the printed effects are at most .0132.
    "uncertainty": Measure("predictive uncertainty", "nats", 1, 0.02, higher_is_better=True, digits=3),
    "diversity": Measure("confidence diversity", "nats", 1, 0.1, higher_is_better=True, digits=3),
    "erased_vector": Measure("1 − S, vector variance", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_std": Measure("1 − S, std of true class", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_vector_matched": Measure("1 − S at equal confidence", "", 1, 0.005, higher_is_better=False, digits=4),
    "erased_std_matched": Measure("std at equal confidence", "", 1, 0.005, higher_is_better=False, digits=4),
    "train_erased_vector": Measure("1 − S on training images", "", 1, 0.005, higher_is_better=False, digits=4),
    "train_erased_std": Measure("std on training images", "", 1, 0.005, higher_is_better=False, digits=4),
    "similar_mass": Measure("share of wrong mass on similar classes", "points", 100, 0.5, True, digits=2),
    "output_drift": Measure("divergence from its past", "nats", 1, 0.01, higher_is_better=False, digits=3),
    # Centres are a scatter or two apart. A rank correlation of .1 is a small one in Cohen's convention.
    "similar_distance": Measure("distance of similar classes", "scatters", 1, 0.05, higher_is_better=True, digits=3),
    "other_distance": Measure("distance of other classes", "scatters", 1, 0.05, higher_is_better=True, digits=3),
    "information": Measure("mutual information", "nats", 1, 0.02, higher_is_better=False, digits=3),
    "association": Measure("partial rank correlation", "", 1, 0.1, higher_is_better=True, digits=2),
    "variance": Measure("confidence variance", "", 1, 0.005, higher_is_better=True, digits=4),
    # The claim on it names a size of its own, a tenth of a point: its margin is as large.
    "flattery": Measure("best over last epoch", "points", 1, 0.1, higher_is_better=True, digits=2),
    "sharpness": Measure("sharpness", "nats", 1, 0.02, higher_is_better=False, digits=3),
}
