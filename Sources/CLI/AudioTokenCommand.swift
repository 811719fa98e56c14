import ArgumentParser
import AudioToken
import Glibc
import WeightFile

@main
struct AudioTokenCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "audiotoken",
    abstract: "Turn a sound into a picture, from one weight file, on a small machine.",
    discussion: """
      Weight files are written by audiotoken-convert.

      EXIT CODES: 0 success; 64 a setting that cannot be; 65 a file whose content is not what it should be; 66 a file that is \
      missing or cannot be read; 71 the system refuses memory; 73 the output cannot be written; 130 interrupted.
      """,
    subcommands: [Generate.self, Encode.self, Inspect.self, Memory.self, Bench.self])

  static func main() {
    // The library's threads and the display share nothing with the handler.
    Interruption.install()
    // A reader of the output that goes away does not stop minutes of work.
    signal(SIGPIPE, SIG_IGN)
    do {
      var command = try parseAsRoot()
      try command.run()
      guard fflush(nil) == 0 || errno == EPIPE else {
        throw AudioTokenError(
          .output, "Standard output cannot be written (\(String(cString: strerror(errno)))); write it to another disk.")
      }
    } catch let error as AudioTokenError {
      Terminal.error("audiotoken: \(error.description)")
      Glibc.exit(error.kind.rawValue)
    } catch {
      exit(withError: error)
    }
  }
}

/// Options that every command which runs the model has.
struct RunOptions: ParsableArguments {
  @Option(help: "Threads; all processors by default.")
  var threads: Int?

  @Option(help: ArgumentHelp("Kernels: portable, or those of this processor.", visibility: .hidden))
  var kernels: String?

  func pipeline(_ model: String) throws(AudioTokenError) -> Pipeline {
    try Pipeline(model: model, threads: threads ?? availableProcessors(), kernels: kernels ?? environmentKernels)
  }

  func kernelBenchmark(repetitions: Int) throws(AudioTokenError) -> KernelBenchmark {
    try KernelBenchmark(
      kernels ?? environmentKernels, threads: threads ?? availableProcessors(), repetitions: repetitions)
  }

  private var environmentKernels: String? { getenv("AUDIOTOKEN_KERNELS").map { String(cString: $0) } }
}

/// A number of bytes: 192M is 192 million, 192Mi is 192 * 2^20.
struct ByteSize: ExpressibleByArgument {
  let bytes: Int

  init?(argument: String) {
    let digits = argument.prefix { $0.isASCII && $0.isNumber }
    let units: [String: Int] = [
      "": 1, "K": 1000, "M": 1_000_000, "G": 1_000_000_000, "Ki": 1 << 10, "Mi": 1 << 20, "Gi": 1 << 30,
    ]
    guard let count = Int(digits), let unit = units[String(argument.dropFirst(digits.count))] else { return nil }
    let (bytes, overflow) = count.multipliedReportingOverflow(by: unit)
    guard !overflow, bytes > 0 else { return nil }
    self.bytes = bytes
  }
}

/// What the process may take of memory.
struct MemoryOptions: ParsableArguments {
  @Option(
    help: ArgumentHelp(
      "Memory that the process may take, file pages included, as 192M or 192Mi; most of what is free by default.",
      valueName: "bytes"))
  var maxRam: ByteSize?
}

/// Options that choose the part of the sound.
struct SoundOptions: ParsableArguments {
  @Option(help: "Where in the sound to begin, in seconds.")
  var start = 0.0

  @Option(help: "How much of the sound to take, in seconds; up to ten by default. Shorter sounds are repeated.")
  var seconds: Double?

  func selection(_ path: String) -> SoundSelection { SoundSelection(path: path, start: start, seconds: seconds) }
}
