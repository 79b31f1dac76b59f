// Figures that can be turned. A page that has one loads this after Bokeh; only then is the figure's static twin hidden.
{
  const turn = figure => {
    const [place, item] = figure.children
    figure.classList.add("turns")
    return Bokeh.embed.embed_item(JSON.parse(item.textContent), place.id)
  }
  const turned = Promise.all([...document.querySelectorAll("div.turning")].map(turn))
  // Formulas are typeset once the figures answer.
  if (window.MathJax) MathJax.startup = {pageReady: () => turned.then(() => MathJax.startup.defaultPageReady())}
}
