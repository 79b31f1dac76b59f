// One image of K classes, the first of them right, and a student whose right logit lies a gap above all others.
const K = teacher.length
const value = Object.fromEntries(Object.entries(sliders).map(([name, slider]) => [name, slider.value]))
const {epsilon, alpha, temperature: tau, share, gap, student} = value

const shareOf = (gap, tau) => 1 / (1 + (K - 1) * Math.exp(-gap / tau))
const handMade = share => Array.from({length: K}, (_, k) => k ? (1 - share) / (K - 1) : share)
const softmax = z => {
  const odds = z.map(x => Math.exp(x - Math.max(...z)))
  const sum = odds.reduce((a, b) => a + b)
  return odds.map(x => x / sum)
}
const virtual = Math.log(correct * (K - 1) / (1 - correct))
const softened = (q, s = alpha * tau ** 2) => ({h: 1 - alpha, s, tau, q})
const methods = {
  "cross-entropy": {h: 1, s: 0, tau: 1, q: handMade(1 / K)},
  "LSR": {h: 1 - epsilon, s: epsilon, tau: 1, q: handMade(1 / K)},
  "LsrKD": softened(handMade(1 / K)),
  "TC, share β": softened(handMade(share)),
  "TC, gap G": softened(handMade(shareOf(gap, tau))),
  "Tf-KD_reg": softened(handMade(shareOf(virtual, tau)), alpha),
  "KD": softened(softmax(teacher.map(z => z / tau))),
}

const gradient = ({h, s, tau, q}, gap) => h * (shareOf(gap, 1) - 1) + s / tau * (shareOf(gap, tau) - q[0])
const optimum = method => {
  if (method.s == 0) return Infinity
  let [low, high] = [-700 * method.tau, 700 * method.tau]
  for (let i = 0; i < 100; i++) {
    const middle = (low + high) / 2
    if (gradient(method, middle) < 0) low = middle; else high = middle
  }
  return low
}

const text = x => x === Infinity ? "∞" : (Math.abs(x) < 1e-12 ? "0" : x.toPrecision(4)).replace("-", "−")
const best = Object.values(methods).map(optimum)
for (const [name, method] of Object.entries(methods))
  lines[name].data = {gap: lines[name].data.gap, gradient: Array.from(lines[name].data.gap, g => gradient(method, g))}
const drawn = best.map((gap, i) => [gap, colours[i]]).filter(([gap]) => gap >= -2 && gap <= 14)
optima.data = {gap: drawn.map(([gap]) => gap), gradient: drawn.map(() => 0), colour: drawn.map(([, colour]) => colour)}
const labels = Object.values(methods).map(({h, q}) => q.map((mass, k) => (k ? 0 : h) + (1 - h) * mass))
cells.data = {...cells.data, mass: labels.flat(), text: labels.flat().map(x => x.toFixed(2).replace("0.", "."))}
place.location = student

const rows = Object.entries(methods).map(([name, method], i) => [
  name, method.h, method.s, method.q[0], labels[i][0], gradient(method, student), best[i], shareOf(best[i], 1),
])
const head = ["method", "h", "s", "teacher's share", "soft label's", "gradient here", "best gap", "best share"]
const row = (tag, cells) => `<tr>${cells.map(cell => `<${tag}>${cell}</${tag}>`).join("")}</tr>`
printed.text = `<div style="overflow-x: auto"><table style="width: 100%; text-align: left">${row("th", head)}
  ${rows.map(([name, ...numbers]) => row("td", [name, ...numbers.map(text)])).join("")}</table></div>`
