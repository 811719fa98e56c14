import Converter
import Foundation
import Models
import Quality
import WeightFile

/// Progress on standard error: a line that is rewritten on a terminal, a line for each stage in a log.
struct ConversionDisplay {
  private let quiet: Bool
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private var last = ""

  init(quiet: Bool) { self.quiet = quiet }

  mutating func show(_ progress: ModelConverter.Progress) {
    switch progress {
    case .hashing(let file): put("reading \(file)")
    case .writing(let stage, let done, let total):
      put("writing \(stage.rawValue)" + (isTerminal ? " \(100 * done / max(1, total)) %" : ""))
    }
  }

  mutating func show(_ progress: Comparison.Progress) {
    let (stage, sound) = (progress.stage, progress.sound.split(separator: "/").last ?? "")
    // A line for each picture in a log.
    let detail = !isTerminal ? "" : stage.total > 1 ? ", \(stage.step) \(stage.done)/\(stage.total)" : ", \(stage.step)"
    put(
      "comparing \(progress.pair + 1) of \(progress.pairs), \(sound) with seed \(progress.seed), "
        + (progress.isExact ? "in floats" : "as stored") + detail)
  }

  private mutating func put(_ line: String) {
    guard !quiet, line != last else { return }
    last = line
    FileHandle.standardError.write(Data((isTerminal ? "\r\u{1B}[K" + line : line + "\n").utf8))
  }

  func finish() {
    if isTerminal { FileHandle.standardError.write(Data("\r\u{1B}[K".utf8)) }
  }

  /// Size and error of quantisation, stage by stage.
  static func table(_ report: ConversionReport, _ weights: WeightType) -> String {
    var lines = ["stage      parameters        bytes   error of the weights"]
    for row in report.rows {
      let error = weights == .int8 ? String(format: "%.3f %%", 100 * row.error.relative) : "-"
      lines.append(
        row.stage.rawValue.padding(toLength: 10, withPad: " ", startingAt: 0)
          + right(String(row.parameters), 11) + right(ByteCount.describe(row.bytes), 13) + right(error, 12))
    }
    return lines.joined(separator: "\n")
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(1, width - text.count)) + text
  }
}
