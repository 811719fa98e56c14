import AudioToken
import Glibc
import WeightFile

/// Where progress goes: standard error, as one line that is rewritten on a terminal, or a line for each stage in a log.
struct Terminal {
  private let isTerminal = isatty(STDERR_FILENO) == 1
  private let quiet: Bool
  private let start = monotonicSeconds()
  private var stageStart = monotonicSeconds()
  private(set) var stages: [(step: Step, seconds: Double, memory: ProcessMemory)] = []

  init(quiet: Bool) { self.quiet = quiet }

  static func error(_ line: String) { write(line + "\n") }

  private static func write(_ text: String) {
    let bytes = Array(text.utf8)
    var done = 0
    while done < bytes.count {
      let count = bytes[done...].withUnsafeBytes { Glibc.write(STDERR_FILENO, $0.baseAddress, $0.count) }
      guard count > 0 else { return }
      done += count
    }
  }

  var elapsed: Double { monotonicSeconds() - start }

  mutating func show(_ progress: Progress) {
    let now = monotonicSeconds()
    if progress.done == 0 { stageStart = now }
    let seconds = now - stageStart
    let isDone = progress.done == progress.total
    if isDone { stages.append((progress.step, seconds, ProcessMemory.now())) }
    guard !quiet, isTerminal || isDone else { return }
    var line = pad(name(progress.step), 10)
    if progress.total > 1 { line += pad("\(progress.done)/\(progress.total)", 8) }
    if isDone {
      line += "\(tenths(seconds)) s"
      if progress.total > 1 { line += ", \(tenths(seconds / Double(progress.total))) s each" }
    } else if progress.done > 0 {
      let each = seconds / Double(progress.done)
      line += "\(tenths(each)) s each, \(clock(each * Double(progress.total - progress.done))) left"
    } else {
      line += "..."
    }
    line += ", \(ByteCount.describe(ProcessMemory.now().resident)) in RAM"
    Self.write(isTerminal ? "\r\u{1B}[K" + line + (isDone ? "\n" : "") : line + "\n")
  }

  /// A line that is not progress.
  func say(_ line: String) {
    if !quiet { Self.write(line + "\n") }
  }

  private func name(_ step: Step) -> String {
    switch step {
    case .audio: "sound"
    case .beats: "BEATs"
    case .projector: "token"
    case .text: "text"
    case .unet: "UNet"
    case .vae: "decoder"
    }
  }

  func tenths(_ value: Double) -> String { Self.tenths(value) }

  static func tenths(_ value: Double) -> String {
    let scaled = Int((value * 10).rounded())
    return "\(scaled / 10).\(scaled % 10)"
  }

  func clock(_ seconds: Double) -> String {
    let whole = Int(seconds.rounded())
    let (minutes, rest) = whole.quotientAndRemainder(dividingBy: 60)
    return "\(minutes):" + (rest < 10 ? "0" : "") + "\(rest)"
  }

  private func pad(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(1, width - text.count))
  }

  /// The stages as JSON.
  var report: JSONText { report(from: 0) }

  /// Those from the one of number `first` on.
  func report(from first: Int) -> JSONText {
    .array(
      stages[first...].map {
        .object([
          ("stage", .string($0.step.rawValue)), ("seconds", .number($0.seconds)),
          ("resident_bytes", .integer($0.memory.resident)), ("peak_resident_bytes", .integer($0.memory.peakResident)),
        ])
      })
  }
}
