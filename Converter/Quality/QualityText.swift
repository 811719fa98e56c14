import AudioToken
import Foundation

extension Quality {
  /// A table with its heading and what is to be known of it.
  private struct Section {
    let heading: String
    let note: String
    let rows: [[String]]
  }

  /// The report as Markdown, which reads as plain text too.
  /// - Parameter isBrief: without what explains the tables.
  package func markdown(isBrief: Bool = false) -> String {
    var text = ""
    if !isBrief { text += "# \(Self.name(model)) beside the same model in floats\n\n\(summary)\n\n" }
    for section in sections(worst: isBrief ? 10 : 20) {
      text += (isBrief ? "" : "## ") + section.heading + "\n\n"
      if !isBrief { text += section.note + "\n\n" }
      text += Self.table(section.rows) + "\n"
    }
    return text
  }

  private var summary: String {
    let settings = pairs.first.map { Dictionary($0.picture.provenance) { first, _ in first } } ?? [:]
    return "Model \(modelHash), \(steps) steps of \(settings["audiotoken:sampler"] ?? "") with guidance "
      + "\(settings["audiotoken:guidance"] ?? ""), \(settings["audiotoken:size"] ?? "") pixels, prompt "
      + "\"\(settings["audiotoken:prompt"] ?? "")\"."
  }

  private func sections(worst count: Int) -> [Section] {
    var sections = [pictures, stages]
    if !layers.isEmpty { sections.append(worstLayers(count)) }
    return sections
  }

  private var pictures: Section {
    Section(
      heading: "Pictures",
      note: "PSNR over all samples of red, green and blue; SSIM with a Gaussian window of 11 x 11 (Wang et al. 2004), "
        + "the mean of the three. `pictures.png` has a row for each row here: the float model's picture, this model's, "
        + "and eight times the difference, black where there is none.",
      rows: [["sound", "seed", "PSNR", "SSIM"]]
        + pairs.map {
          [
            Self.name($0.sound), String($0.seed), $0.psnr.isInfinite ? "equal" : String(format: "%.2f dB", $0.psnr),
            $0.ssim.map { String(format: "%.4f", $0) } ?? "-",
          ]
        })
  }

  private var stages: Section {
    let names = pairs.first?.stages.map(\.name) ?? []
    return Section(
      heading: "Error of what each stage gives",
      note: "|this model's - float's| / |float's|, where each model reads what its own stages before gave, so that "
        + "errors add up; over all pairs of sound and seed.",
      rows: [["stage", "mean", "worst"]]
        + names.indices.map { index in
          let errors = pairs.map { $0.stages[index].error }
          return [
            names[index], Self.percent(errors.reduce(0, +) / Double(errors.count)), Self.percent(errors.max() ?? 0),
          ]
        })
  }

  private func worstLayers(_ count: Int) -> Section {
    let sorted = layers.sorted { ($0.relative, $1.name) > ($1.relative, $0.name) }
    let shown = sorted.prefix(count)
    return Section(
      heading: "Worst layers, \(shown.count) of \(layers.count); the median is "
        + Self.percent(sorted[sorted.count / 2].relative),
      note: "Each product of this model beside that of the float weights with the same input before it was quantised: "
        + "|error| / |exact|, without biases, at up to 128 places of each product, over all steps.",
      rows: [["layer", "outputs", "inputs", "error"]]
        + shown.map {
          let taps = $0.shape.taps > 1 ? " x \($0.shape.taps)" : ""
          return [$0.name, String($0.shape.outputs), "\($0.shape.inputs)\(taps)", Self.percent($0.relative)]
        })
  }

  private static func percent(_ value: Double) -> String { String(format: "%.3f %%", 100 * value) }

  private static func name(_ path: String) -> String { path.split(separator: "/").last.map(String.init) ?? path }

  /// The first column to the left, the others to the right.
  private static func table(_ rows: [[String]]) -> String {
    let cells = rows.map { row in row.map { $0.replacingOccurrences(of: "|", with: "\\|") } }
    let widths = cells[0].indices.map { column in max(3, cells.map { $0[column].count }.max() ?? 0) }
    func line(_ row: [String]) -> String {
      "| "
        + row.enumerated().map { column, cell in
          let space = String(repeating: " ", count: widths[column] - cell.count)
          return column == 0 ? cell + space : space + cell
        }.joined(separator: " | ") + " |\n"
    }
    let rule = widths.enumerated().map { column, width in
      String(repeating: "-", count: width - (column == 0 ? 0 : 1)) + (column == 0 ? "" : ":")
    }
    return line(cells[0]) + line(rule) + cells.dropFirst().map(line).joined()
  }

  /// The whole report for programs; the PSNR of equal pictures, which is infinite, is null.
  package var json: JSONText {
    .object([
      ("model", .string(model)), ("model_hash", .string(modelHash)), ("steps", .integer(steps)),
      (
        "pictures",
        .array(
          pairs.map { pair in
            .object([
              ("sound", .string(pair.sound)), ("seed", .string(String(pair.seed))), ("psnr", .number(pair.psnr)),
              ("ssim", pair.ssim.map(JSONText.number) ?? .null),
              ("stages", .object(pair.stages.map { ($0.name, .number($0.error)) })),
            ])
          })
      ),
      (
        "layers",
        .array(
          layers.map { layer in
            .object([
              ("name", .string(layer.name)), ("outputs", .integer(layer.shape.outputs)),
              ("inputs", .integer(layer.shape.inputs)), ("taps", .integer(layer.shape.taps)),
              ("groups", .integer(layer.shape.groups)), ("error", .number(layer.relative)),
            ])
          })
      ),
    ])
  }
}
