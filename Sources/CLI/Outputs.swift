import AudioToken
import WeightFile

/// An output that is opened before the work and named after it.
struct OutputFile {
  private let file: AtomicFile

  /// - Parameter inputs: the files that are read, which it may not replace.
  init(_ path: String, keeping inputs: [String]) throws(AudioTokenError) {
    do throws(OutputFileError) { file = try AtomicFile(path: path, keeping: inputs) } catch {
      throw AudioTokenError(.output, error.description)
    }
  }

  func finish(_ bytes: [UInt8]) throws(AudioTokenError) {
    do throws(OutputFileError) {
      try file.write(bytes)
      try file.commit()
    } catch {
      throw AudioTokenError(.output, error.description)
    }
  }

  func abandon() { file.cancel() }
}

extension OutputFolder {
  init(_ path: String) throws(AudioTokenError) {
    do throws(OutputFileError) { try self.init(path: path) } catch {
      throw AudioTokenError(.output, error.description)
    }
  }
}
