import Testing
@testable import AudioToken
