// Figures that can be turned. A page that has one loads this after Bokeh; only then is the figure's static twin hidden.
// Formulas wait until the figures answer: this then loads what typesets them.
{
  const {formulas} = document.currentScript.dataset
  const turn = figure => {
    const [place, item] = figure.children
    figure.classList.add("turns")
    return Bokeh.embed.embed_item(JSON.parse(item.textContent), place.id)
  }
  const typeset = () => document.head.append(Object.assign(document.createElement("script"), {src: formulas}))
  const turned = Promise.all([...document.querySelectorAll("div.turning")].map(turn))
  if (formulas) turned.finally(typeset)
}
