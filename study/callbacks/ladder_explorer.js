// Seeds lie beside each other at multiples of the golden section, which fill a width evenly.
const [ladder, metric, control] = ["ladder", "metric", "control"].map(name => chosen[name].value)
const found = Object.entries(differences[ladder][metric][control])
const offset = i => 0.6 * ((0.618034 * i) % 1 - 0.5)
seeds.data = {
  rung: found.flatMap(([rung, {seeds}]) => seeds.map((_, i) => [rung, offset(i)])),
  difference: found.flatMap(([, {seeds}]) => seeds),
}
const part = i => found.map(([, {effect}]) => effect[i])
means.data = {rung: found.map(([rung]) => rung), mean: part(0), low: part(1), high: part(2)}
axis.axis_label = `Δ ${units[metric]}`
printed.text = found.map(([rung, {text, n}]) => `<b>${rung}</b> ${text}, n = ${n}`).join("; ")
